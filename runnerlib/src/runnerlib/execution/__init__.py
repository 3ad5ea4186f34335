"""Runs calls in worker processes that can be killed: which runs go where, for how long, and what a death costs.

The way of a run: :meth:`runnerlib.run_manager.RunManager.submit` registers it, :meth:`.pool.Group.add` queues it,
:meth:`.slot.Slot.schedule` takes it into a :class:`.work_queue.Call` and sends that to a
:class:`.worker_process.WorkerProcess`. There, :mod:`runnerlib.process.calls` calls the handler; its frames come back to
:meth:`.slot.Slot.on_frames`, and :meth:`runnerlib.run_manager.RunManager.finish` records the outcome. When the process
dies instead, :func:`.outcomes.fate_of` decides.
"""
