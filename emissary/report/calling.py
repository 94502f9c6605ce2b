"""How a trained checkpoint is deployed and called, as commands of a shell."""

import json
import shlex
from typing import Any

_BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "text-generation": ("chat/completions", {"messages": [{"role": "user", "content": "…"}]}),
    "classification": ("classification", {"input": "…", "data_format": "probs"}),
    "regression": ("regression", {"input": "…"}),
    "embedding": ("embeddings", {"input": "…", "target": "…"}),
}
"""Task type → operation, and a body beside the model's name."""


def commands(project_id: str, job: dict[str, Any], checkpoint: int) -> str:
    """Deploys that checkpoint of the job under the job's name, and calls it. Names are quoted for the shell."""
    operation, body = _BODIES[job["task_type"]]
    request = json.dumps({"model": job["name"]} | body, ensure_ascii=False)
    return "\n".join(
        (
            f"emissary deployments create --project {project_id} --job {job['id']} --checkpoint {checkpoint} \\",
            f"  --name {shlex.quote(job['name'])}",
            f'curl "$EMISSARY_URL/v1/{operation}" \\',
            '  -H "X-API-Key: $EMISSARY_API_KEY" -H "Content-Type: application/json" \\',
            f"  -d {shlex.quote(request)}",
        )
    )
