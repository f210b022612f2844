// Talking to the server. Addresses are relative to the page, which may live behind a prefix.

const STORED_KEY = "penstock.key"; // of this tab: gone when it is closed

export const key = {
  get: () => sessionStorage.getItem(STORED_KEY) ?? "",
  set: (text) => sessionStorage.setItem(STORED_KEY, text),
  forget: () => sessionStorage.removeItem(STORED_KEY),
};

/** What went wrong, in words to show. `status` is 0 where no answer came at all. */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** A response that is a success. Throws ServerError for any other, AbortError when stopped. */
export async function ask(path, { body, signal } = {}) {
  const headers = key.get() ? { authorization: `Bearer ${asBytes(key.get())}` } : {};
  if (body) headers["content-type"] = "application/json";
  const request = { method: body ? "POST" : "GET", body: body && JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, { ...request, headers, signal, cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ServerError(0, "The server does not answer. Is it still running?");
  }
  if (!response.ok) throw new ServerError(response.status, await complaint(response));
  return response;
}

/** The data of a response's server-sent events. Throws ServerError if it breaks off. */
export async function* events(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (text + value).split("\n\n");
      text = parts.pop();
      for (const part of parts) {
        const data = part.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new ServerError(response.status, event.error.message);
        yield event;
      }
    }
  } catch (error) {
    if (error instanceof ServerError || signal?.aborted) throw error;
    throw new ServerError(0, "The connection broke off.");
  } finally {
    await reader.cancel().catch(() => {}); // it may have failed already, which was told above
  }
}

async function complaint(response) {
  const text = await response.text();
  try {
    const { message, param } = JSON.parse(text).error;
    return param && !message.includes(param) ? `${param}: ${message}` : message;
  } catch {
    return text.slice(0, 300) || `The server answered with status ${response.status}.`;
  }
}

/** A header takes bytes only, and the server reads them as UTF-8. */
const asBytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));
