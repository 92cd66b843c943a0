"""One module a command: `run(request)` asks the cluster, prints, and returns the exit code."""
