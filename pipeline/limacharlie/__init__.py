"""What only LimaCharlie does: credentials, tokens, REST API, stream protocol, shapes of records."""
