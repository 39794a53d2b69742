"""The OpenAI-compatible HTTP API; the only place that imports FastAPI and pydantic."""
