"""The HTTP door: submit tasks, ask for their results, cancel them, see what algorithms there are."""
