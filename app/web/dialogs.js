/** The two dialogs: asking for the key, and confirming a deletion. */

/** Asks for the service's key. Resolves to it, or to null where the person cancels. */
export function requestKey(wasWrong) {
  const input = document.getElementById("key");
  document.getElementById("key-text").textContent = wasWrong
    ? "That key was not accepted. Check it and try again."
    : "This service answers only to those who have its key. It is kept until you close this tab.";
  input.value = "";
  return settled("key", () => input.value);
}

/** Whether the person wants the conversation of that title deleted. */
export async function confirmDeletion(title) {
  document.getElementById("delete-text").textContent = `“${title}” and its answers will be erased. This cannot be undone.`;
  return (await settled("delete", () => true)) === true;
}

function settled(name, value) {
  const dialog = document.getElementById(`${name}-dialog`);
  const form = document.getElementById(`${name}-form`);
  const cancel = document.getElementById(`${name}-cancel`);
  return new Promise((resolve) => {
    const done = new AbortController();
    const { signal } = done;
    let result = null;
    form.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        result = value();
        dialog.close();
      },
      { signal },
    );
    cancel.addEventListener("click", () => dialog.close(), { signal });
    dialog.addEventListener(
      "close",
      () => {
        done.abort();
        form.reset();
        resolve(result);
      },
      { signal },
    );
    dialog.showModal();
  });
}
