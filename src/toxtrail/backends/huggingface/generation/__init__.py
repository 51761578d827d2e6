"""Continuations of prompts."""
