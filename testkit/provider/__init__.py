"""A strict OpenAI-compatible provider on loopback. It shares no code with the limiter that it judges, and counts what arrives itself."""
