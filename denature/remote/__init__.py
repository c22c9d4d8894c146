"""Clients of inference servers: requests, replies that are not trusted, and secrets."""
