// ask sends a request and returns its document; a refusal comes as an Error
// with the problem's own fields.
export async function ask(method, path, body) {
  const res = await fetch(`/api/v1${path}`, {
    method,
    headers: { 'Content-Type': 'application/json' },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const doc = await res.json().catch(() => ({ detail: `the server answers ${res.status}` }));
  if (!res.ok) throw Object.assign(new Error(doc.detail), doc);
  return doc;
}
