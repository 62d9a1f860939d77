"""One YAML file and the environment, parsed once at the edge into frozen, validated settings."""
