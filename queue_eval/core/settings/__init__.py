"""The settings that decide a run's outcome: eval.yaml has them, and the manifest freezes them."""
