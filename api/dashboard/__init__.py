"""The dashboard at `/ui`: pages for people, made on the server of what the API's own endpoints answer.

Pages call the functions of `api.endpoints`, so that a person sees what a program gets, and may do what a key may do.
Without scripts everything works but live progress and the playground.
"""
