"""What one does with a run, whoever asks: a command, a pod, or Python. A file each."""
