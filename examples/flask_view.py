"""A Flask view with a memory: one `sync.Memory` for the process, one `bind` per request.

Expected output:

    $ python examples/flask_view.py
    {'answer': 'You said: Hello!', 'turns': 1}
    {'answer': 'You said: Me again.', 'turns': 2}
"""

import json
import threading
from urllib.request import Request, urlopen

from flask import Flask, request
from werkzeug.serving import make_server

from memory_async import sync


def create_app(memory: sync.Memory) -> Flask:
    app = Flask(__name__)

    @app.post("/chat/<session>")
    def chat(session: str) -> dict[str, object]:
        view = memory.bind(session_id=session, user_id=request.headers["X-User"])
        answer = f"You said: {request.get_data(as_text=True)}"  # stands in for your model
        question = {"role": "user", "content": request.get_data(as_text=True)}
        turn = view.save([question, {"role": "assistant", "content": answer}])
        return {"answer": answer, "turns": turn.seq if turn else 0}

    return app


if __name__ == "__main__":
    with sync.Memory("memory://", full_session_memory=True) as memory:
        server = make_server("127.0.0.1", 0, create_app(memory), threaded=True)
        threading.Thread(target=server.serve_forever).start()
        for text in (b"Hello!", b"Me again."):
            url = f"http://127.0.0.1:{server.port}/chat/s1"
            with urlopen(Request(url, text, {"X-User": "ada"})) as response:
                print(json.load(response))
        server.shutdown()
        server.server_close()
