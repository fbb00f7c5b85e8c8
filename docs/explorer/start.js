// Nothing is downloaded before the button is pressed
(() => {
  const here = document.currentScript.src, button = document.getElementById("explorer-load");
  const status = document.getElementById("explorer-status");
  button.addEventListener("click", async () => {
    if (location.protocol === "file:") {
      status.textContent = "Browsers load a model from a web server only: python -m http.server in the site's folder is one.";
      return;
    }
    try {
      const page = await import(new URL("page.js", here));
      await page.start(new URL("model/", here));
    } catch (fault) {
      status.textContent = `The model could not be loaded: ${fault.message}`;
    }
  });
})();
