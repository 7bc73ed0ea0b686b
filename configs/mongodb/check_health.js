// Succeeds when MongoDB takes writes. Until then it makes the replica set that the server is to be: one of one, under
// the address that clients on this machine use. A lone server would lose acknowledged writes when it is killed.
db.getSiblingDB("admin").auth(process.env.MONGO_INITDB_ROOT_USERNAME, process.env.MONGO_INITDB_ROOT_PASSWORD);
try {
  rs.status();
} catch (error) {
  if (error.codeName !== "NotYetInitialized") throw error;
  rs.initiate({ _id: "rs0", members: [{ _id: 0, host: "127.0.0.1:27017" }] });
}
if (!db.hello().isWritablePrimary) quit(1);
