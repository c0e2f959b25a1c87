/** Puts the page together: the address, the drawer, the panel and what keys do. */

import { askKeyWith } from "./api.js";
import { Conversation } from "./conversation.js";
import { requestKey } from "./dialogs.js";
import { Panel } from "./panel.js";
import { Readiness } from "./readiness.js";
import { Sidebar } from "./sidebar.js";

// The same widths as in style.css.
const drawerWidth = matchMedia("(max-width: 859px)");
const sheetWidth = matchMedia("(max-width: 1099px)");

const main = document.getElementById("main");
const sidebarRoot = document.getElementById("sidebar");
const panelRoot = document.getElementById("panel");
const scrim = document.getElementById("scrim");
const openDrawerButton = document.getElementById("open-drawer");
const closeDrawerButton = document.getElementById("close-drawer");
let drawerIsOpen = false;

const readiness = new Readiness();
askKeyWith(requestKey, () => readiness.check());
const panel = new Panel(arrange);
const sidebar = new Sidebar((conversationId) => {
  if (conversationId === conversation.id) beginNew();
});
const conversation = new Conversation({
  openCitation: (citation, button) => panel.open(citation, button),
  changed: (conversationId) => {
    if (conversationId !== null) setAddress(conversationId, "replaceState");
    sidebar.select(conversationId);
    sidebar.refresh({ asksKey: false });
    readiness.checkIfWorried();
  },
  left: () => panel.close({ restoreFocus: false }),
  failed: () => readiness.check(),
});

function idInAddress() {
  if (!location.hash.startsWith("#c/")) return null;
  try {
    return decodeURIComponent(location.hash.slice(3)) || null;
  } catch {
    return null; // a stray % in an address typed by hand
  }
}

function setAddress(conversationId, how) {
  const hash = conversationId === null ? location.pathname + location.search : `#c/${encodeURIComponent(conversationId)}`;
  if (idInAddress() !== conversationId) history[how](null, "", hash);
}

function followAddress() {
  const conversationId = idInAddress();
  sidebar.select(conversationId);
  if (conversationId === null) conversation.begin();
  else conversation.open(conversationId);
}

function beginNew() {
  setAddress(null, "pushState");
  followAddress();
}

/** What lies under an open drawer or sheet takes no keys and no clicks. */
function arrange() {
  const drawer = drawerIsOpen && drawerWidth.matches;
  const sheet = panel.isOpen && sheetWidth.matches;
  main.inert = drawer || sheet;
  sidebarRoot.inert = sheet || (drawerWidth.matches && !drawer);
  panelRoot.inert = drawer;
  sidebarRoot.classList.toggle("is-open", drawer);
  scrim.hidden = !drawer && !sheet;
  openDrawerButton.setAttribute("aria-expanded", String(drawer));
  document.body.classList.toggle("has-panel", panel.isOpen);
}

function setDrawer(isOpen) {
  if (isOpen === drawerIsOpen) return;
  drawerIsOpen = isOpen;
  arrange();
  if (!drawerWidth.matches) return;
  (isOpen ? closeDrawerButton : openDrawerButton).focus();
}

function closeWhatIsOpen() {
  if (panel.isOpen) panel.close();
  else if (drawerIsOpen) setDrawer(false);
}

openDrawerButton.addEventListener("click", () => setDrawer(true));
closeDrawerButton.addEventListener("click", () => setDrawer(false));
scrim.addEventListener("click", closeWhatIsOpen);
drawerWidth.addEventListener("change", () => {
  drawerIsOpen = false;
  arrange();
});
sheetWidth.addEventListener("change", arrange);

document.getElementById("new-conversation").addEventListener("click", () => {
  setDrawer(false);
  beginNew();
  conversation.focusQuestion();
});
document.getElementById("conversations").addEventListener("click", (event) => {
  if (event.target.closest("a") !== null) setDrawer(false);
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  conversation.focusQuestion();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || document.querySelector("dialog[open]") !== null) return;
  if (panel.isOpen || drawerIsOpen) closeWhatIsOpen();
  else conversation.stop();
});
window.addEventListener("hashchange", followAddress);
window.addEventListener("popstate", () => {
  if (idInAddress() !== conversation.id) followAddress();
});

arrange();
followAddress();
sidebar.refresh({ asksKey: true });
readiness.check();
if (!matchMedia("(pointer: coarse)").matches) conversation.focusQuestion();
