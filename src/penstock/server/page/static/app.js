// Where the page begins: the key, the model's name, and which view is shown.

import { startCurl } from "./curl.js";
import { byId } from "./elements.js";
import { startLive } from "./live.js";
import { startPlayground, useModel } from "./playground.js";
import { drawSampling } from "./sampling.js";
import { ask, key } from "./server.js";

const KEY_REASON = byId("key-reason").textContent;
const showLive = startLive(askForKey);

function askForKey(reason) {
  byId("key-reason").textContent = reason ? `${reason} ${KEY_REASON}` : KEY_REASON;
  byId("key").value = key.get();
  if (!byId("key-dialog").open) byId("key-dialog").showModal();
}

/** Learn what the server says of itself; ask for a key if it will not. */
async function connect() {
  const title = byId("model");
  try {
    const [models, description] = await Promise.all(
      ["v1/models", "openapi.json"].map(async (path) => (await ask(path)).json()),
    );
    const { id, max_model_len: length } = models.data[0];
    useModel(id);
    drawSampling(description);
    title.textContent = `${id} · context of ${length.toLocaleString("en")} tokens`;
    title.classList.remove("problem");
  } catch (error) {
    title.textContent = error.status === 401 ? "An API key is needed." : error.message;
    title.classList.add("problem");
    if (error.status === 401) askForKey(error.message);
  }
}

function showView() {
  const isEngine = location.hash === "#engine";
  byId("view-engine").hidden = !isEngine;
  byId("view-playground").hidden = isEngine;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === (isEngine ? "#engine" : "#playground")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  watchIfSeen();
}

/** Nobody looks at a hidden tab, so the server need not tell it anything. */
function watchIfSeen() {
  showLive(location.hash === "#engine" && !document.hidden);
}

byId("open-key").addEventListener("click", () => askForKey(""));
byId("key-form").addEventListener("submit", ({ submitter }) => {
  if (submitter?.value === "forget") key.forget();
  else key.set(byId("key").value.trim());
  connect();
  watchIfSeen();
});
addEventListener("hashchange", showView);
document.addEventListener("visibilitychange", watchIfSeen);
byId("settings").open = matchMedia("(min-width: 60rem)").matches;
startCurl();
startPlayground(askForKey);
showView();
connect();
