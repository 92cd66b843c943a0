"""Asynchronous jobs: taken in, worked on by every gateway, told of by webhooks."""
