"""The OpenAI-compatible API: translations between its requests and answers and those of the services."""
