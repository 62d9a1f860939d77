"""Seeded defects: each is put into a copy of the code, and a named test must fail because of it."""
