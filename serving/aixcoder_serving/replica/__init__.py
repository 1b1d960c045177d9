"""One replica: a Ray Serve actor that listens on the pod's port and has an engine behind it.

Its life:
1. Serve starts the actor on a worker that holds the resource `replica`. The constructor opens the port and returns;
   from now on `GET /ready` tells the phase (503 until `ready`). Serve calls that RUNNING; the pod's probe does not.
2. In the background the model's folder is checked, the tokenizer read, the engine's process started and loaded: phase
   `loading` with percent, then `ready`.
3. If that fails, `/ready` says `failed` with a reason and a sentence. After `FAILURE_SHOWN_SECONDS` the health check
   fails too, Serve replaces the actor and the load is tried again: a mend outside (a claim filled, a device freed)
   heals it.
4. `POST /generate` runs a completion and streams it. A client that goes away cancels it. This process does HTTP and
   text; the engine's does the rest, with another one for each further rank, all on the GPUs that Ray gave the actor.
5. The engine is lost when its process, one of its ranks or its device dies or stands still. What it was completing ends
   with status 503, so that a gateway asks another replica; `/ready` says `failed`; at the next health check this
   process ends. It, or any other replica that was killed or lost its listener, is replaced by Serve on the same worker.
   An engine never outlives its replica: it ends with the socket between them.
6. Drain (scale down, new revision, SIGTERM on the worker): `/ready` turns 503. For `LINGER_SECONDS` requests of
   gateways that have not noticed are still taken, then refused with 503; running ones have `shutdown_grace_seconds`
   to end.

`application.py` is this for Ray; `service.py`, `server.py` and `listener.py` know nothing of Ray and are what
`aixcoder serve` runs.
"""
