"""`tinylm serve` as the clients that people have see it: openai and langchain-openai from PyPI, openai from npm.

    python -m venv v && v/bin/pip install openai langchain-openai
    tinylm serve RUN --port 8080 &
    v/bin/python stages/serve/benches/clients_peer.py http://127.0.0.1:8080 [FOLDER WITH node_modules/openai]

Prints a line for each thing that was tried and exits with 1 at the first that is not as it should be. Any model will
do: answers are as long as they may be, and nobody looks at what they say. Clients are as they come, retries and
all, and requests are counted: what will be refused again is asked for once.
"""

import json
import subprocess
import sys
import urllib.request

import openai
from langchain_openai import ChatOpenAI

url = sys.argv[1] + "/v1"
requests = []
http = openai.DefaultHttpxClient(event_hooks={"request": [requests.append]})
client = openai.OpenAI(base_url=url, api_key="none", http_client=http)
hello = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the capital of France?"}]


def check(what, holds):
    print(("ok    " if holds else "FAILED"), what, flush=True)
    if not holds:
        sys.exit(1)


model = client.models.list().data[0].id
check("models", client.models.retrieve(model).id == model)
long = {"ignore_eos": True}
asked = dict(model=model, messages=hello, seed=3, max_tokens=24, extra_body=long)
once = client.chat.completions.create(**asked)
check("chat", once.choices[0].message.role == "assistant" and once.usage.completion_tokens > 0)
again = client.chat.completions.create(**asked)
check("the same seed, the same answer", again.choices[0].message.content == once.choices[0].message.content)
check("cached tokens", again.usage.prompt_tokens_details.cached_tokens > 0)
chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
check("a stream says the same", said == once.choices[0].message.content)
check("usage at the end of a stream", chunks[-1].usage == again.usage)
three = client.chat.completions.create(**asked, n=3)
check("the first of three choices", three.choices[0].message.content == said)
wild = dict(temperature=2, top_p=1, extra_body={**long, "top_k": 0, "min_p": 0})
three = client.chat.completions.create(**{**asked, **wild}, n=3)
check("three choices", len({choice.message.content for choice in three.choices}) == 3)
told = client.chat.completions.create(**asked, logprobs=True, top_logprobs=4).choices[0].logprobs.content
pieces = "".join(token.token for token in told)
# A letter may be of two tokens, each of which is none by itself.
check("likelihoods", len(told[0].top_logprobs) == 4 and (pieces == said or "\ufffd" in pieces))
word = said[len(said) // 2 :][:2]
cut = client.chat.completions.create(**asked, stop=[word]).choices[0]
check("a stop text", cut.finish_reason == "stop" and cut.message.content == said.split(word)[0])
request = urllib.request.Request(f"{sys.argv[1]}/tokenize", json.dumps({"content": "a"}).encode())
ids = json.load(urllib.request.urlopen(request))["tokens"]
other = client.chat.completions.create(**asked, temperature=0, logit_bias={str(ids[-1]): 100})
check("a bias forces a token", set(other.choices[0].message.content) <= {"a", " "})
text = client.completions.create(model=model, prompt=["The sky is", "Water is"], max_tokens=4, echo=True, logprobs=2, temperature=0)
check("texts", [choice.text[:8] for choice in text.choices] == ["The sky ", "Water is"])
check("likelihoods of a prompt", text.choices[0].logprobs.token_logprobs[0] is None)
image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}]


def chat(**wrong):
    return lambda: client.chat.completions.create(**{**asked, **wrong})


for what, ask, error in [
    ("a temperature below zero", chat(temperature=-1), openai.BadRequestError),
    ("another model", chat(model="other"), openai.NotFoundError),
    ("tools", chat(tools=[{"type": "function", "function": {"name": "f"}}]), openai.BadRequestError),
    ("tools, a stream", chat(tools=[{"type": "function", "function": {"name": "f"}}], stream=True), openai.BadRequestError),
    ("an image", chat(messages=image), openai.BadRequestError),
    ("a form", chat(response_format={"type": "json_object"}), openai.BadRequestError),
    ("a slip of the hand", chat(extra_body={"max_tokns": 5}), openai.BadRequestError),
    ("embeddings", lambda: client.embeddings.create(model=model, input="hi"), openai.BadRequestError),
    ("a dialogue that is too long", chat(messages=[{"role": "user", "content": "word " * 9000}]), openai.BadRequestError),
]:
    requests.clear()
    try:
        ask()
        check(what, False)
    except error as found:
        check(f"{what}: {found.status_code} {found.body['message'][:60]}, asked once", len(requests) == 1)

chain = ChatOpenAI(base_url=url, api_key="none", model=model, max_tokens=24, seed=3, extra_body=long)
check("langchain", chain.invoke([("system", "Be brief."), ("human", hello[1]["content"])]).content == said)
check("langchain, a stream", "".join(part.content for part in chain.stream([("system", "Be brief."), ("human", hello[1]["content"])])) == said)

if len(sys.argv) > 2:
    script = f"""
        const OpenAI = require('openai').default ?? require('openai');
        (async () => {{
            const client = new OpenAI({{ baseURL: '{url}', apiKey: 'none' }});
            const stream = await client.chat.completions.create({{
                model: '{model}', seed: 3, max_tokens: 24, stream: true, ignore_eos: true,
                messages: {json.dumps(hello)},
            }});
            let said = '';
            for await (const chunk of stream) said += chunk.choices[0]?.delta?.content ?? '';
            process.stdout.write(said);
        }})();
    """
    out = subprocess.run(["node", "-e", script], cwd=sys.argv[2], capture_output=True, text=True)
    check(f"openai for node {out.stderr[-200:]}", out.stdout == said)
else:
    print("SKIPPED: no folder with openai for node was named")
