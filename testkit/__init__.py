"""Servers, judges, clocks and fakes that tests and measurements share. Not shipped."""
