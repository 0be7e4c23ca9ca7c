"""Approvals: what people are asked, what they answer, and what that allows."""
