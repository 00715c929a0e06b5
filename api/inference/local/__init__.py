"""The engine in this process: the model, its one thread, and what is shared with the tasks that wait for answers.

1. `engine.py` `LocalEngine.answer` or `.stream`, in the request's event loop, puts a `Ticket` (`tickets.py`) in a
   queue: the waiting one, or the background's, which is read only while nothing waits.
2. Its thread, the only one that touches the model, takes tickets while their answers fit a batch, fetches the memories
   that are not loaded yet (`memgen.routing.loaded`), routes the prompt where a version has a memory for each task, and
   decodes all rows of the batch together (`memgen.generation.decoding`).
3. Each piece of text, each whole answer and each error goes back through the ticket as it comes. A reader that leaves
   marks its ticket, whose rows end at the next step.
"""
