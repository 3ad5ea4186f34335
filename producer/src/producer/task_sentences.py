"""What became of a task, as a sentence and as a line of JSON. Pure."""

from typing import Any

from producer.models import TaskState, TaskSummaryView, TaskView, to_json


def sentence(task: TaskView, waited_seconds: float = 0) -> str:
    """How a task stands that has no result."""
    if task.state is TaskState.FAILED and task.error is not None:
        return f"task {task.id} failed ({task.error.code}): {task.error.message}"
    if task.state is TaskState.CANCELLED:
        return f"task {task.id} was cancelled"
    waited = f" after {waited_seconds:g} s" if waited_seconds else ""
    why = f" ({task.waiting_for})" if task.waiting_for else ""
    return f"task {task.id} is {task.state.value}{waited}{why}; ask again with: producer result {task.id} --wait"


def cancelled(task: TaskView) -> str:
    """What a cancel did."""
    if task.state is not TaskState.CANCELLED:
        return f"task {task.id} is running; its runner is being asked to stop"
    if not task.algorithm:
        return f"nobody has seen a task {task.id} yet; should it come, it will not run"
    return f"task {task.id} is cancelled"


def doing(task: TaskView | TaskSummaryView) -> str:
    """What a task that has not ended is doing, or waits for."""
    if task.progress is not None and task.progress.message:
        return task.progress.message
    if task.cancel_requested:
        return "is being stopped"
    if task.state is TaskState.RETRYING and task.error is not None:
        why = task.waiting_for or f"waits for attempt {task.attempt}"
        return f"{why} ({task.error.code}: {task.error.message})"
    return task.waiting_for or task.state.value


def outcome(task: TaskView) -> dict[str, Any]:
    """Its id, its state, and its result or error."""
    entry: dict[str, Any] = {"id": task.id, "state": task.state.value}
    if task.state is TaskState.SUCCEEDED:
        entry["result"] = task.result
    elif task.error is not None:
        entry["error"] = to_json(task.error)
    return entry
