"""The verbs: one small file each, no logic."""
