"""Protocols between the flow and the world.

One contract suite, run against every implementation, is their specification.
"""
