"""What ``python -m runnerlib`` can do beside serving: check, run, schemas, shell."""
