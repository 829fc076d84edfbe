"""AI sessions: LimaCharlie's REST service for them, and the WebSocket of each."""
