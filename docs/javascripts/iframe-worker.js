// Browsers refuse to start a Worker from a folder (file:), and the search needs one. Where the site is read without a
// server, a hidden frame of the same origin does the worker's job. The theme would load a shim like this one from another
// server, unless a file of this name is given (zensical.toml).
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const place = new URL(url, location.href);
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.ready = new Promise((resolve) => {
        frame.onload = () => {
          const scope = frame.contentWindow;
          const load = (source) =>
            new Promise((loaded, failed) => {
              const script = scope.document.createElement("script");
              script.src = new URL(source, place);
              script.onload = loaded;
              script.onerror = failed;
              scope.document.head.append(script);
            });
          scope.importScripts = (...sources) =>
            sources.reduce((done, source) => done.then(() => load(source)), Promise.resolve());
          scope.postMessage = (data) => {
            const event = new MessageEvent("message", { data });
            this.dispatchEvent(event);
            this.onmessage?.(event);
          };
          load(place).then(() => resolve(scope), (event) => this.onerror?.(event));
        };
      });
      frame.srcdoc = "<!doctype html>";
      document.documentElement.append(frame);
      this.frame = frame;
    }

    postMessage(data) {
      this.ready.then((scope) => scope.dispatchEvent(new scope.MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
