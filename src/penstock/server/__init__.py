"""The HTTP front: connections in, requests to the engine, text out. It never touches a tensor."""
