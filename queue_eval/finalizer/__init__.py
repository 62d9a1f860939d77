"""Waits for drained, aggregates what the store holds, publishes the report.

Idempotent: two of them write the same bytes.
"""
