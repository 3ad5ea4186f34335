"""``worker conformance URL``: how much of the contract a runner fulfils, in whatever language it is written."""
