"""Chats, names in text, token ids, and where a subject is among them."""
