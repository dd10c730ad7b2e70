// Before anything is drawn: scripts run, and which theme was chosen the last time.
document.documentElement.classList.add("scripted");
try {
  const chosen = localStorage.getItem("prunus-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* a browser that keeps nothing: the system's theme it is */ }
