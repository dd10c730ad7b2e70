// Light or dark: the system's, until somebody chooses.

const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (systemDark.matches ? "dark" : "light")) === "dark";

function themeButton() {
  const button = h("button", { type: "button", class: "button", id: "theme" });
  const name = () => {
    button.textContent = isDark() ? "☀ Light" : "☾ Dark";
    button.setAttribute("aria-label", isDark() ? "Use the light theme" : "Use the dark theme");
  };
  const follow = () => {
    name();
    set({ dark: isDark() });
  };
  button.addEventListener("click", () => {
    const chosen = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = chosen;
    try {
      localStorage.setItem("prunus-theme", chosen);
    } catch { /* it holds until the page is closed */ }
    follow();
  });
  systemDark.addEventListener("change", follow);
  // Paper is light, pictures on canvases included.
  let before;
  addEventListener("beforeprint", () => {
    before = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    follow();
  });
  addEventListener("afterprint", () => {
    if (before) document.documentElement.dataset.theme = before;
    else delete document.documentElement.dataset.theme;
    follow();
  });
  state.dark = isDark();
  name();
  return button;
}

/** The value of a colour of the theme, for canvases. */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
