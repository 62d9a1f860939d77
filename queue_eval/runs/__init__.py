"""What can be done with a run, by a command, a pod, or Python. A file each."""
