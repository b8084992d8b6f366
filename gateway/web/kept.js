// The API key in this browser, and nothing else.

const KEY = "messaging-gateway-key";

/** Where the key is kept. A browser may forbid both; then it lasts as long as the page. */
export const stored = {
  read() {
    try {
      return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
    } catch {
      return null;
    }
  },
  write(key, remember) {
    try {
      sessionStorage.setItem(KEY, key);
      if (remember) localStorage.setItem(KEY, key);
    } catch {
      console.warn("this browser keeps no data for this page");
    }
  },
  clear() {
    try {
      sessionStorage.removeItem(KEY);
      localStorage.removeItem(KEY);
    } catch {
      console.warn("this browser keeps no data for this page");
    }
  },
};
