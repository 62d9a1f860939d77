"""Whole runs on a real Kubernetes: real API server, Job controller, kubelet and containers, and the project's own image."""
