"""How an answer is made, from the endpoint of chat down to the model's one thread and back.

1. `endpoints/chat.py` resolves the model's name to a version, once; `source.py` knows where its bytes are.
2. `server.py` `Inference.answer` or `.stream`, in the request's event loop, puts a `Ticket` (`tickets.py`) in a queue:
   the waiting one, or the background's, which is read only while nothing waits.
3. Its thread, the only one that touches the model, takes tickets while their answers fit a batch, fetches the memories
   that are not loaded yet (`memgen.routing.loaded`), routes the prompt where a version has a memory for each task, and
   decodes all rows of the batch together (`memgen.generation.decoding`).
4. Each piece of text, each whole answer (`Finished`, with its tokens' bytes from `token_texts.py`) and each error goes
   back through the ticket as it comes. A reader that leaves marks its ticket, whose rows end at the next step.
5. `shadows.py` may then ask the shadow of a route the same, in the background, and record how the two answers compare.

The public methods of `Inference` are all that the rest of the service knows of the model.
"""
