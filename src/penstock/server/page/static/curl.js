// The request on the page as a command. A key is named in it, never shown.

import { byId } from "./elements.js";
import { key } from "./server.js";

/** Show the command that sends `body` to `path`. */
export function showCurl(path, body) {
  byId("curl").value = command(new URL(path, document.baseURI), body);
  byId("copied").textContent = "";
  byId("curl-dialog").showModal();
}

/** Bring the dialog's button to life. */
export function startCurl() {
  byId("copy-curl").addEventListener("click", async () => {
    const field = byId("curl");
    field.select();
    // outside HTTPS and localhost there is only the old way, which acts on the selection
    if (navigator.clipboard) await navigator.clipboard.writeText(field.value);
    else document.execCommand("copy");
    byId("copied").textContent = "Copied.";
  });
}

function command(url, body) {
  const lines = [`curl -N ${quoted(url.href)}`, "-H 'Content-Type: application/json'"];
  if (key.get()) lines.push('-H "Authorization: Bearer $PENSTOCK_API_KEY"');
  lines.push(`-d ${quoted(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
