"""LimaCharlie's detection language as pure functions over decoded records."""
