"""The HTTP API: one module per resource. Requests in, the core's words out; no SQL, no vendor."""
