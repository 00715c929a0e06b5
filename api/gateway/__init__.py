"""Requests for other endpoints' models: forwarded, passed through as they are answered, and put together.

`calls` sends them, `passing` hands the answer on, `answers` puts it together, `refusals` words what went wrong. None
knows a row or a recording: an endpoint says what becomes of an answer.
"""
