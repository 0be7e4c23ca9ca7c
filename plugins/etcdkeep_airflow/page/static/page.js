// What the page adds to its links and forms: it shows new data by itself, searches as one types, copies, and leaves Airflow's frame.
const live = () => document.getElementById("live");
let timer = 0;
let asked = 0;

const show = async (address, scroll) => {
  const turn = ++asked;
  clearTimeout(timer);
  try {
    const answer = await fetch(address, { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("live");
    if (turn !== asked) return;
    if (!fresh) return location.reload();
    const heading = page.querySelector("h1");
    if (heading) document.querySelector("h1").replaceWith(heading);
    const actions = page.querySelector(".actions");
    if (actions && !document.querySelector(".actions")) document.querySelector("h1").after(actions);
    keepPlace(fresh);
    if (scroll) scrollTo(0, 0);
  } catch {
    // the API server does not answer: what is shown stays, and is asked for again
  }
  later();
};

// Put the new part in, and leave scroll bars and the keyboard's focus where they were.
const keepPlace = (fresh) => {
  const old = live();
  const bars = [...old.querySelectorAll(".scroll")].map((each) => [each.scrollLeft, each.scrollTop]);
  const focused = old.contains(document.activeElement) ? place(document.activeElement, old) : null;
  old.replaceWith(fresh);
  [...fresh.querySelectorAll(".scroll")].forEach((each, index) => {
    if (bars[index]) [each.scrollLeft, each.scrollTop] = bars[index];
  });
  if (focused) [...fresh.querySelectorAll(focused.kind)].find((each) => name(each) === focused.name)?.focus({ preventScroll: true });
};
const name = (element) => element.getAttribute("href") ?? element.getAttribute("aria-label") ?? element.textContent;
const place = (element) => ({ kind: element.tagName, name: name(element) });

const later = () => {
  clearTimeout(timer);
  const seconds = Number(live()?.dataset.reload);
  if (seconds) timer = setTimeout(() => (document.hidden ? later() : show(location.href)), seconds * 1000);
};

for (const form of document.querySelectorAll("form[data-live]")) {
  let typing = 0;
  const search = () => {
    const words = [...new FormData(form)].filter(([, value]) => value);
    history.replaceState(null, "", `${location.pathname}?${new URLSearchParams(words)}`);
    show(location.href, true);
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  form.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(search, 150);
  });
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) {
    const text = button.parentElement.querySelector("pre");
    getSelection().selectAllChildren(text);
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Selected: press Ctrl+C";
    }
    return;
  }
  const link = event.target.closest("a[data-airflow]");
  // Airflow shows this page in a frame that may not lead its window elsewhere; a link of Airflow's own document may.
  if (link && parent !== window && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    const outer = parent.document.createElement("a");
    outer.href = link.href;
    parent.document.body.append(outer);
    outer.click();
    outer.remove();
  }
});

later();
