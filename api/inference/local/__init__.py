"""The engine in this process: the model, its one thread, and what is shared with the tasks that wait for answers.

1. `engine.py` `LocalEngine.answer` or `.stream`, in the request's event loop, makes a `Ticket` (`tickets.py`), which
   the backlog takes or refuses (`backlog.py`); a thread reads its prompt and puts it into the inbox (`inbox.py`).
2. The model's thread, the only one that touches the model, looks there between two steps (`model_loop.py`). A version
   that is not there is loaded by other threads meanwhile (`loading.py`), beside which its requests wait (`awaited.py`).
   The answers of a ticket are rows (`rows.py`), which wait in line for room in the cache (`waiting.py`); those of the
   background wait until nothing else is left.
3. Rows that were let in are decoded together (`memgen.generation.decoding`): their prompts are read in the steps of the
   others, a router chooses a memory by its prompt where a version has one for each task, and each leaves as it ends.
4. Each piece of text, each whole answer and each error goes back through the ticket as it comes. A reader that leaves,
   or whose time has passed, marks its ticket, whose rows end before the next step. `figures.py` is what can be seen.
"""
