"""Measurements, and the strict provider that they and the tests run against."""
