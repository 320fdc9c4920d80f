"""What llama.cpp makes of some token sequences, with and without an adapter; a process of its own.

Called with a GGUF model, an adapter or nothing, and a JSON list of lists of tokens; prints for each
its next four greedy tokens, and the natural logarithms of the probabilities of the first of them.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from llama_cpp import Llama

if __name__ == "__main__":
    model, adapter, sequences = sys.argv[1], sys.argv[2] or None, json.loads(sys.argv[3])
    llama = Llama(
        model, lora_path=adapter, n_ctx=128, n_threads=1, logits_all=True, verbose=False, seed=0
    )
    answers = []
    for ids in sequences:
        llama.reset()
        llama.eval(ids)
        logits = np.array(llama.scores[len(ids) - 1], dtype=np.float64)
        greedy, given = [], list(ids)
        for _ in range(4):
            greedy.append(int(np.argmax(llama.scores[len(given) - 1])))
            given.append(greedy[-1])
            llama.eval(greedy[-1:])
        logprobs = logits - logits.max()
        logprobs -= np.log(np.exp(logprobs).sum())
        answers.append({"greedy": greedy, "logprobs": logprobs.tolist()})
    print(json.dumps(answers))
